"""One function per stage: each moves data from files through components to files."""
