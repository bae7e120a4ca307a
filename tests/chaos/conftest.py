"""Lets the tests here import the desk in this process."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # station; importlib mode adds no directory
