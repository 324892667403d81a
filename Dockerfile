# One static binary on nothing: no shell, no packages, nothing to patch but the binary itself.
# The context holds just that binary, named by PROGRAM: see scripts/build-images.sh.

# A module needs no rights: the gateway opens its workload socket to any user of the container.
FROM scratch AS module
ARG PROGRAM
COPY ${PROGRAM} /module
USER 65532:65532
ENTRYPOINT ["/module"]

FROM scratch AS edge-agent
ARG PROGRAM
COPY ${PROGRAM} /edge-agent
ENTRYPOINT ["/edge-agent"]
CMD ["run"]

FROM scratch AS central
ARG PROGRAM
COPY ${PROGRAM} /central
# Freed memory goes back to the system instead of being kept for each thread.
ENV MALLOC_ARENA_MAX=2 MALLOC_TRIM_THRESHOLD_=1048576 MALLOC_MMAP_THRESHOLD_=1048576
ENTRYPOINT ["/central"]
CMD ["serve"]
