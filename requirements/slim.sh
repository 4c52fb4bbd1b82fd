#!/bin/sh
# Removes from the virtual environment /opt/fairway what no pod of fairway uses: 115 MB of `serve`, 460 MB of `train`.
set -eu
cd /opt/fairway/lib/python3*/site-packages

# For building packages, for ksonnet's files and for huge logs; no pod does any of it.
pip --python /opt/fairway uninstall -qq --yes \
    editables hatchling libclang pathspec pluggy rjsonnet setuptools tensorboard-data-server tomlkit trove-classifiers wheel

# The packages' own tests.
find . -type d -name tests -prune -exec rm -r {} +
# Headers, for those who write operators in C++.
rm -rf tensorflow/include
# Of LiteRT the parts for graphics and phones' processors, and the library that drives them; the interpreter runs on
# the CPU.
rm -rf ai_edge_litert/libLiteRt.so ai_edge_litert/libLiteRtWebGpuAccelerator.so ai_edge_litert/tools ai_edge_litert/vendors
# The source of simdjson, for those who build on it.
rm -rf simdjson/*.cpp simdjson/*.h
# What compiles Fortran for numpy, and pictures that no digit comes in.
rm -rf numpy/distutils numpy/f2py pillow.libs/libavif* PIL/_avif*
# Of Amazon's services those of object storage and of its credentials.
find botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name signin ! -name sso ! -name sso-oidc ! -name sts -exec rm -r {} +
