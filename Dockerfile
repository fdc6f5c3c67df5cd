# Training on a CPU, as a user without rights:
#   docker build --tag esper .
#   docker run --rm --volume "$PWD/runs:/work/runs" esper ppo --env CartPole-v1
ARG PYTHON=3.13
FROM python:${PYTHON}-slim

# The kernels are compiled for the processor that they run on, so not here.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

# Where torch is from: by default its builds for CPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# As box2d,mujoco.
ARG EXTRAS=
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "${TORCH_INDEX}" ".${EXTRAS:+[$EXTRAS]}"

RUN useradd --create-home --uid 1000 esper && mkdir --parents /work/runs && chown -R esper /work
USER esper
WORKDIR /work
ENTRYPOINT ["esper"]
CMD ["--help"]
