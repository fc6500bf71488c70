"""The private database server: finding, preparing and starting the program, and sharing it between processes."""
