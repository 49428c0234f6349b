"""Put Triton's Python backend and its stub for this Python together, and become the server."""

import os
import shutil
import sys
from pathlib import Path

site, work, port = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
home = site / "pytriton/tritonserver"
backends = work / "backends"
shutil.copytree(home / "backends/python", backends / "python")
version = f"{sys.version_info.major}.{sys.version_info.minor}"
for file in (home / "python_backend_stubs" / version).iterdir():
    shutil.copy(file, backends / "python")
server = home / "bin/tritonserver"
arguments = ["--model-repository", work / "models", "--backend-directory", backends]
arguments += ["--http-port", port, "--allow-grpc", "0", "--allow-metrics", "0"]
libraries = [str(site / "nvidia_pytriton.libs"), str(home / "external_libs")]
paths = os.pathsep.join([os.environ["LD_LIBRARY_PATH"], *libraries])
os.environ["LD_LIBRARY_PATH"] = paths
os.environ["PYTHONPATH"] = str(site)
os.execv(server, [str(each) for each in (server, *arguments)])
