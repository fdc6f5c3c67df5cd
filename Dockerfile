# Training on a CPU, as a user without rights:
#   docker build --tag esper .
#   docker run --rm --volume "$PWD/runs:/work/runs" esper ppo --env CartPole-v1
ARG PYTHON=3.13

# A wheel that carries the kernels, so that the image needs no compiler.
FROM python:${PYTHON} AS wheel
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY src src
RUN ESPER_CARRY_KERNELS=1 pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON}-slim
# Where torch is from: by default its builds for CPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# As box2d,mujoco.
ARG EXTRAS=
COPY constraints.txt /
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir --constraint /constraints.txt --extra-index-url "${TORCH_INDEX}" \
        "$(echo /dist/*.whl)${EXTRAS:+[$EXTRAS]}" \
    && rm -r /dist

RUN useradd --create-home --uid 1000 esper && mkdir --parents /work/runs && chown -R esper /work
USER esper
WORKDIR /work
ENTRYPOINT ["esper"]
CMD ["--help"]
