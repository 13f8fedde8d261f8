"""Readers of the containers that datasets come in: JSON of gigabytes, MATLAB files, CDF files, videos.

What the content means is the adapters' matter. All of them say in one line what is wrong with a file.
"""
