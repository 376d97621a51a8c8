#!/usr/bin/env bash
# Build pycuda against the headers of JetPack 6's CUDA, in a new virtual environment, without a GPU and without a driver.
#
#     PYTHON=python3.10 tests/portability/build_pycuda.sh build/pycuda
#
# A Jetson has nvcc, headers and libcuda; here they come from wheels, and the linker gets a libcuda with one function. It
# shows that pycuda compiles and links. It loads no CUDA: `import pycuda.driver` must end at the missing driver, and nowhere else.
# Then the tests that need the real pycuda and cuda-bindings run, on a driver's library made of host memory.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder="$(realpath -m "${1:?the folder to build in}")"
"${PYTHON:-python3}" -m venv --clear "$folder"
pip=("$folder/bin/python" -m pip -q --disable-pip-version-check)
"${pip[@]}" install numpy==1.26.4 nvidia-{cuda-runtime,cuda-profiler-api}-cu12==12.6.77 \
  nvidia-cuda-nvcc-cu12==12.6.85 nvidia-curand-cu12==10.3.7.77

cuda="$("$folder/bin/python" -c 'import site; print(site.getsitepackages()[0])')/nvidia"
mkdir -p "$folder/stubs"
echo 'int cuInit(unsigned flags) { return 100; }' | # without any function a linker may drop the library
  gcc -shared -fPIC -x c - -o "$folder/stubs/libcuda.so" -Wl,-soname,libcuda.so.1
ln -sf "$cuda"/curand/lib/libcurand.so.* "$folder/stubs/libcurand.so"
export CUDA_ROOT="$cuda/cuda_runtime" CPATH="$(printf "%s:" "$cuda"/*/include)" LIBRARY_PATH="$folder/stubs"
export LD_LIBRARY_PATH="$cuda/curand/lib"
export CFLAGS=-O0 # nothing of it will run: as fast as possible
"${pip[@]}" install --no-cache-dir --no-binary pycuda pycuda==2026.1

"$folder/bin/python" - <<'PROGRAM'
import pycuda

try:
    import pycuda.driver
except ImportError as error:
    if "libcuda.so.1" not in str(error):
        raise
    print(f"pycuda {pycuda.VERSION_TEXT} is built; without a driver it says: {error}")
else:
    print(f"pycuda {pycuda.VERSION_TEXT} is built, and there is a driver")
PROGRAM

"${pip[@]}" install -c constraints-310.txt pyzmq onnxruntime pydantic PyYAML typer rich onnx pytest pytest-timeout hypothesis \
  cuda-bindings
PYTHONPATH="$PWD" "$folder/bin/python" -m pytest -q -p no:cacheprovider tests/runtime/engines/test_real_bindings.py
