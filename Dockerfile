# Two images in one file:
#   docker build --target cpu .     (the default)
#   docker build --target cuda .    for NVIDIA GPUs; run it with --gpus all
# Each step is a script in deploy/image, which the tests run without a container engine.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS build
ARG EXTRAS=openvino,postgres,redis,s3
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY deploy/image deploy/image
COPY src src
RUN deploy/image/install.sh /opt/whisper-api "$EXTRAS"

FROM build AS build-cuda
RUN deploy/image/cuda.sh /opt/whisper-api

FROM python:${PYTHON}-slim-bookworm AS base
LABEL org.opencontainers.image.title="Whisper API server" \
      org.opencontainers.image.description="Self-hosted, OpenAI-compatible speech to text" \
      org.opencontainers.image.licenses="MIT"
COPY deploy/image/account.sh /usr/local/share/whisper-api/account.sh
RUN /usr/local/share/whisper-api/account.sh
# All that is written lies in /data, temporary files too: the rest may be read-only.
ENV PATH=/opt/whisper-api/bin:$PATH \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WHISPER_API_HOST=0.0.0.0 \
    WHISPER_API_DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 5042
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 CMD ["whisper-api-health"]
ENTRYPOINT ["whisper-api"]
CMD ["serve"]

FROM base AS cuda
COPY --from=build-cuda /opt/whisper-api /opt/whisper-api
ENV LD_LIBRARY_PATH=/opt/whisper-api/cuda WHISPER_API_DEVICE=cuda

FROM base AS cpu
COPY --from=build /opt/whisper-api /opt/whisper-api
