//! The members of Docker's ContainerCreate body, as the engine's own Go types have them.
//!
//! Names and types are those of `api/types/container` of Docker 20.10 to 29. A member that is missing here is passed on as written.

use self::Shape::{Any, Flag, Integer, List, Map, Object, Pointer, Text, Texts};

/// The type of a member.
pub(super) enum Shape {
    Text,
    Flag,
    Integer,
    /// A text, or a list of texts.
    Texts,
    List(&'static Shape),
    /// Keys that the user chooses.
    Map(&'static Shape),
    /// Keys that the engine compares without regard to case.
    Object(&'static [Member]),
    /// A value that null takes away; without it null changes nothing.
    Pointer(&'static Shape),
    Any,
}

/// A name and a type.
pub(super) type Member = (&'static str, Shape);

const TEXTS: Shape = List(&Text);
const TEXT_MAP: Shape = Map(&Text);
const SET: Shape = Map(&Any);

/// The body itself.
pub(super) const BODY: &[Member] = &[
    ("Hostname", Text),
    ("Domainname", Text),
    ("User", Text),
    ("AttachStdin", Flag),
    ("AttachStdout", Flag),
    ("AttachStderr", Flag),
    ("ExposedPorts", SET),
    ("Tty", Flag),
    ("OpenStdin", Flag),
    ("StdinOnce", Flag),
    ("Env", TEXTS),
    ("Cmd", Texts),
    ("Healthcheck", Pointer(&Object(HEALTHCHECK))),
    ("ArgsEscaped", Flag),
    ("Image", Text),
    ("Volumes", SET),
    ("WorkingDir", Text),
    ("Entrypoint", Texts),
    ("NetworkDisabled", Flag),
    ("MacAddress", Text),
    ("OnBuild", TEXTS),
    ("Labels", TEXT_MAP),
    ("StopSignal", Text),
    ("StopTimeout", Pointer(&Integer)),
    ("Shell", Texts),
    ("HostConfig", Pointer(&Object(HOST_CONFIG))),
    ("NetworkingConfig", Pointer(&Object(&[("EndpointsConfig", Map(&Pointer(&Object(ENDPOINT))))]))),
];

/// Members of `HostConfig` that engines before 25 also read from the body itself.
pub(super) const BODY_OF_OLD_ENGINES: &[Member] = &[
    ("Cpuset", Text),
    ("CpusetCpus", Text),
    ("CpuShares", Integer),
    ("Memory", Integer),
    ("MemorySwap", Integer),
    ("VolumeDriver", Text),
];

const HEALTHCHECK: &[Member] = &[
    ("Test", TEXTS),
    ("Interval", Integer),
    ("Timeout", Integer),
    ("StartPeriod", Integer),
    ("StartInterval", Integer),
    ("Retries", Integer),
];

/// `HostConfig`.
pub(super) const HOST_CONFIG: &[Member] = &[
    ("Binds", TEXTS),
    ("ContainerIDFile", Text),
    ("LogConfig", Object(&[("Type", Text), ("Config", TEXT_MAP)])),
    ("NetworkMode", Text),
    ("PortBindings", Map(&List(&Object(&[("HostIp", Text), ("HostPort", Text)])))),
    ("RestartPolicy", Object(&[("Name", Text), ("MaximumRetryCount", Integer)])),
    ("AutoRemove", Flag),
    ("VolumeDriver", Text),
    ("VolumesFrom", TEXTS),
    ("ConsoleSize", List(&Integer)),
    ("Annotations", TEXT_MAP),
    ("CapAdd", Texts),
    ("CapDrop", Texts),
    ("Capabilities", TEXTS),
    ("CgroupnsMode", Text),
    ("Dns", TEXTS),
    ("DnsOptions", TEXTS),
    ("DnsSearch", TEXTS),
    ("ExtraHosts", TEXTS),
    ("GroupAdd", TEXTS),
    ("IpcMode", Text),
    ("Cgroup", Text),
    ("Links", TEXTS),
    ("OomScoreAdj", Integer),
    ("PidMode", Text),
    ("Privileged", Flag),
    ("PublishAllPorts", Flag),
    ("ReadonlyRootfs", Flag),
    ("SecurityOpt", TEXTS),
    ("StorageOpt", TEXT_MAP),
    ("Tmpfs", TEXT_MAP),
    ("UTSMode", Text),
    ("UsernsMode", Text),
    ("ShmSize", Integer),
    ("Sysctls", TEXT_MAP),
    ("Runtime", Text),
    ("Isolation", Text),
    ("CpuShares", Integer),
    ("Memory", Integer),
    ("NanoCpus", Integer),
    ("CgroupParent", Text),
    ("BlkioWeight", Integer),
    ("BlkioWeightDevice", List(&Pointer(&Object(&[("Path", Text), ("Weight", Integer)])))),
    ("BlkioDeviceReadBps", RATES),
    ("BlkioDeviceWriteBps", RATES),
    ("BlkioDeviceReadIOps", RATES),
    ("BlkioDeviceWriteIOps", RATES),
    ("CpuPeriod", Integer),
    ("CpuQuota", Integer),
    ("CpuRealtimePeriod", Integer),
    ("CpuRealtimeRuntime", Integer),
    ("CpusetCpus", Text),
    ("CpusetMems", Text),
    (
        "Devices",
        List(&Object(&[("PathOnHost", Text), ("PathInContainer", Text), ("CgroupPermissions", Text)])),
    ),
    ("DeviceCgroupRules", TEXTS),
    ("DeviceRequests", List(&Object(DEVICE_REQUEST))),
    ("KernelMemory", Integer),
    ("KernelMemoryTCP", Integer),
    ("MemoryReservation", Integer),
    ("MemorySwap", Integer),
    ("MemorySwappiness", Pointer(&Integer)),
    ("OomKillDisable", Pointer(&Flag)),
    ("PidsLimit", Pointer(&Integer)),
    ("Ulimits", List(&Pointer(&Object(&[("Name", Text), ("Soft", Integer), ("Hard", Integer)])))),
    ("CpuCount", Integer),
    ("CpuPercent", Integer),
    ("IOMaximumIOps", Integer),
    ("IOMaximumBandwidth", Integer),
    ("Mounts", List(&Object(MOUNT))),
    ("MaskedPaths", TEXTS),
    ("ReadonlyPaths", TEXTS),
    ("Init", Pointer(&Flag)),
];

const RATES: Shape = List(&Pointer(&Object(&[("Path", Text), ("Rate", Integer)])));

const DEVICE_REQUEST: &[Member] = &[
    ("Driver", Text),
    ("Count", Integer),
    ("DeviceIDs", TEXTS),
    ("Capabilities", List(&TEXTS)),
    ("Options", TEXT_MAP),
];

const MOUNT: &[Member] = &[
    ("Type", Text),
    ("Source", Text),
    ("Target", Text),
    ("ReadOnly", Flag),
    ("Consistency", Text),
    (
        "BindOptions",
        Pointer(&Object(&[
            ("Propagation", Text),
            ("NonRecursive", Flag),
            ("CreateMountpoint", Flag),
            ("ReadOnlyNonRecursive", Flag),
            ("ReadOnlyForceRecursive", Flag),
        ])),
    ),
    (
        "VolumeOptions",
        Pointer(&Object(&[
            ("NoCopy", Flag),
            ("Labels", TEXT_MAP),
            ("Subpath", Text),
            ("DriverConfig", Pointer(&Object(&[("Name", Text), ("Options", TEXT_MAP)]))),
        ])),
    ),
    ("ImageOptions", Pointer(&Object(&[("Subpath", Text)]))),
    (
        "TmpfsOptions",
        Pointer(&Object(&[("SizeBytes", Integer), ("Mode", Integer), ("Options", List(&TEXTS))])),
    ),
    ("ClusterOptions", Pointer(&Any)),
];

const ENDPOINT: &[Member] = &[
    (
        "IPAMConfig",
        Pointer(&Object(&[("IPv4Address", Text), ("IPv6Address", Text), ("LinkLocalIPs", TEXTS)])),
    ),
    ("Links", TEXTS),
    ("Aliases", TEXTS),
    ("MacAddress", Text),
    ("DriverOpts", TEXT_MAP),
    ("GwPriority", Integer),
    ("NetworkID", Text),
    ("EndpointID", Text),
    ("Gateway", Text),
    ("IPAddress", Text),
    ("IPPrefixLen", Integer),
    ("IPv6Gateway", Text),
    ("GlobalIPv6Address", Text),
    ("GlobalIPv6PrefixLen", Integer),
    ("DNSNames", TEXTS),
];
