"""Read and generate the texts that models are trained on."""
