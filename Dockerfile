# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked && strip target/release/evalmill

# Programs that are judged run in this image: what they may need is installed here.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home evalmill
COPY --from=build /src/target/release/evalmill /usr/local/bin/evalmill
USER evalmill
# Other containers ask for health and metrics, so it is not on loopback here.
ENV EVALMILL__TELEMETRY__LISTEN=0.0.0.0:9464
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["evalmill", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["evalmill"]
CMD ["serve"]
