"""People in videos: frames, tracks, smoothing, and the results of a whole clip."""
