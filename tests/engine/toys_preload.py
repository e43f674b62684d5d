"""A module that is slow to import: writes a line into the file that IMPORTS names, and takes its time."""

import os
import time

with open(os.environ["IMPORTS"], "a") as file:
    file.write(f"{os.getpid()}\n")
time.sleep(float(os.environ.get("IMPORT_S", "0")))
