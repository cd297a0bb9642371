# The pipeline's environment with CUDA, for clusters and rented machines: docker build -t distillery . (Not built here yet.)
#
# The clone is mounted, not copied: docker run --gpus all --ipc host -v "$PWD:/study" distillery dvc repro
# Sandboxed programs need user namespaces or root: with Apptainer and podman they are there, with Docker add --cap-add SYS_ADMIN.
FROM nvidia/cuda:13.0.1-devel-ubuntu22.04
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends \
        python3.11 python3.11-dev python3.11-venv git make g++ curl bubblewrap libseccomp2 openssh-client pdsh \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/distillery
COPY Makefile ./
COPY requirements requirements
COPY scripts/setup.sh scripts/install.sh scripts/
RUN make setup ACCELERATOR=gpu PYTHON=python3.11
ENV PATH=/opt/distillery/.venv/bin:$PATH
WORKDIR /study
