"""Takes files in: stores uploads, shows what is in them, and makes batch files of data sets."""
