"""The results of the programs that .qmail files run most often: a module for each."""
