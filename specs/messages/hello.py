"""Says hello: a Job that travels in a message, script and all."""

import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--who", default="you")
print(f"hello, {parser.parse_args().who}")
