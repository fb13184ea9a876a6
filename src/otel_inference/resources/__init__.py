"""What the process uses of what it may use: probes, one a file, and the thread that reads them."""
