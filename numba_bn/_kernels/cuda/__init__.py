"""The backend functions on NVIDIA GPUs: plans of kernel launches, and the kernels."""
