"""Reads data sets of many formats as rows, and turns them into the lines of an OpenAI batch file."""
