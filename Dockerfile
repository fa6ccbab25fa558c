# Not tried yet: the project's machines have no container engine. Please report what happens.
FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/whisper-api \
    && /opt/whisper-api/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.13-slim
# ctranslate2 and onnxruntime are linked with OpenMP's runtime.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home whisper \
    && install -d -o whisper /data
COPY --from=build /opt/whisper-api /opt/whisper-api
ENV PATH=/opt/whisper-api/bin:$PATH WHISPER_API_HOST=0.0.0.0 WHISPER_API_DATA_DIR=/data
USER whisper
WORKDIR /data
VOLUME /data
EXPOSE 5042
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD \
    ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:5042/health', timeout=4)"]
ENTRYPOINT ["whisper-api"]
CMD ["serve"]
