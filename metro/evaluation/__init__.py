"""Evaluation: metrics, benchmark protocols, mean-pose baselines and attention analysis."""
