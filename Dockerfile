# aobd and aob, for a user without rights. Where io_uring is refused (Docker's default seccomp profile) the node runs on plain files and says so:
# docs/operating/cluster.md.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/src/target --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked --bin aobd --bin aob \
    && install -Dt /out target/release/aobd target/release/aob

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/aob --create-home aob
COPY --from=build /out/ /usr/local/bin/
USER aob
VOLUME /var/lib/aob
EXPOSE 7400
# A node that drains under load has `shutdown.drain_seconds` for it.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=2s --start-period=30s CMD curl -sf http://127.0.0.1:7400/readyz || exit 1
ENTRYPOINT ["aobd"]
CMD ["serve", "--data-dir", "/var/lib/aob", "--listen", "0.0.0.0:7400", "--set", "auth.insecure=true"]
