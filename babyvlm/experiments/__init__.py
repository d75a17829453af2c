"""What is trained and asked, as a graph of stages."""
