"""From a folder of files to stacks in space, and their pixels."""
