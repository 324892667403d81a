# One static binary on nothing: no shell, no packages, nothing to patch but the binary itself.
# The context holds just that binary: see scripts/build-images.sh.
FROM scratch AS program
ARG PROGRAM
COPY ${PROGRAM} /program
ENTRYPOINT ["/program"]

# A module needs no rights: the gateway opens its workload socket to any user of the container.
FROM program AS module
USER 65532:65532

FROM program AS edge-agent
CMD ["run"]

FROM program AS central
CMD ["serve"]
