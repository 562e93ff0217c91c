# syntax=docker/dockerfile:1
# cellflow with the versions that it is tested with. Torch is the index's own: on Linux that is one with CUDA.
# For machines without a GPU, a third of the size: --build-arg TORCH_INDEX=ADDRESS of an index of CPU builds.
#
#   docker build -t cellflow .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" cellflow train --fold 2
#
# `make test-package` lints it and takes its steps outside of Docker.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /build
COPY . .
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir wheels .

FROM python:${PYTHON}-slim
ARG TORCH_INDEX=
WORKDIR /opt/cellflow
COPY --from=wheel /build/wheels wheels
COPY constraints.txt .
RUN python -m pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && python -m pip install --no-cache-dir --constraint constraints.txt wheels/*.whl
# the whole job once, so that kernels are compiled for whoever runs it, and what cannot work is no image
ENV NUMBA_CACHE_DIR=/opt/cellflow/kernels
RUN cellflow demo --images 6 --unseen 2 --k 2 --n_epochs 1 --device cpu \
    && rm -r cellflow-demo \
    && chmod -R a+rwX kernels
WORKDIR /work
RUN chmod 1777 .
ENV HOME=/work
USER 1000:1000
ENTRYPOINT ["cellflow"]
CMD ["--help"]
