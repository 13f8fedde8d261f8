"""Body and hand models: joint sets, model files, skinning."""
