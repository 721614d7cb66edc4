"""Where tiles are computed: here, or by the processes of torchrun."""
