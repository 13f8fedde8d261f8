"""Weights of MediaPipe's BlazePose and hand networks, from its tflite files to tensors by our modules' names."""
