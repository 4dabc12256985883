"""What is shown: figures and widgets over a lab and over measurements."""
