# docker build --build-arg SOURCE_COMMIT=$(git rev-parse HEAD) -t spillgate .
# docker run --security-opt seccomp=tuning/seccomp.json --ulimit nofile=1048576 --ulimit memlock=67108864 \
#   -p 8080:8080 spillgate serve --redis redis://redis:6379
# docs/containers.md says why each of these.
ARG BUILDER=rust:1-slim-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
# glommio's build script needs a C compiler, the C library's headers, and git.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev git binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG SOURCE_COMMIT=
RUN cargo build --release --locked && strip --strip-debug -o /spillgate target/release/spillgate

FROM ${BASE}
COPY --from=build /spillgate /usr/bin/spillgate
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/spillgate/
# No setting is an ENV: it would go before what a mounted file says. Flags and variables of `docker run` go before the file.
COPY tuning/container.toml /etc/spillgate/spillgate.toml
ENV SPILLGATE_CONFIG=/etc/spillgate/spillgate.toml
EXPOSE 8080 9090
# Nobody: it writes nothing, and needs no right.
USER 65534:65534
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 CMD ["/usr/bin/spillgate", "healthcheck"]
ENTRYPOINT ["/usr/bin/spillgate"]
CMD ["serve"]
