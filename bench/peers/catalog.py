"""Which libraries are compared, where they come from, and which of their products are timed."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

# Versions are pinned so that figures can be made again; raise them here.
TOOLS = ("numpy==2.4.6",)


@dataclass(frozen=True)
class Source:
    """A package whose source archive holds a library that is built here, for this machine's processor, or whose wheel has it
    for any."""

    package: str
    folder: str  # of the library inside the archive
    targets: tuple
    options: tuple = ()
    wheel: str = ""  # the folder of a wheel with libraries that are compiled already: nothing is built


@dataclass(frozen=True)
class Library:
    name: str
    formats: tuple
    program: str = ""  # built from bench/peers
    script: str = ""  # or a Python worker
    packages: tuple = ()
    source: Source = None
    environment: tuple = ()  # of (name, value)


LIBRARIES = (
    Library(
        "anybit",
        (
            "int8_g128",
            "int8_g32",
            "sf7_g128",
            "sf6_g128",
            "sf5_g128",
            "sf4_g128",
            "uint4_g128",
            "sf4_g32",
            "sf3_g128",
            "sf2_g128",
        ),
        program="work_anybit",
    ),
    Library(
        "llama.cpp",
        (
            "bf16",
            "q8_0",
            "q8_0+repack",
            "q6_K",
            "q6_K+repack",
            "q5_K",
            "q5_K+repack",
            "q4_0",
            "q4_0+repack",
            "q4_1",
            "q4_K",
            "q4_K+repack",
            "iq4_nl+repack",
            "iq4_xs",
            "mxfp4",
            "mxfp4+repack",
            "q3_K",
            "q3_K+repack",
            "q2_K",
            "q2_K+repack",
            "tq2_0",
            "tq1_0",
        ),
        program="work_llama_cpp",
        source=Source(
            "llama-cpp-python==0.3.36",
            "vendor/llama.cpp",
            ("llama",),
            ("-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_BUILD_TOOLS=OFF"),
        ),
    ),
    Library(
        "ik_llama.cpp",
        (
            "bf16_r16",
            "q8_0",
            "q8_0_r8",
            "q8_k_r8",
            "q8_k_r16",
            "q8_KV_r8",
            "q6_K",
            "q6_k_r4",
            "q5_K",
            "q5_k_r4",
            "q4_0",
            "q4_0_r8",
            "q4_K",
            "q4_k_r4",
            "iq4_xs",
            "iq4_xs_r8",
            "iq4_ks",
            "iq4_ks_r4",
            "mxfp4",
            "q3_K",
            "q3_k_r4",
            "iq3_k",
            "q2_K",
            "q2_k_r4",
            "iq2_ks",
            "iq2_k_r4",
            "iq2_bn",
            "iq2_bn_r4",
            "iq1_bn",
        ),
        program="work_ik_llama_cpp",
        source=Source(
            "ik-llama-cpp-python==0.1.5", "vendor/ik_llama.cpp", ("llama",), ("-DGGML_IQK_FA_ALL_QUANTS=OFF",)
        ),
    ),
    Library(
        "ik_llama.cpp-wheel",
        ("q8_0_r8", "q6_k_r4", "q5_k_r4", "q4_0_r8", "q4_k_r4", "iq4_ks_r4", "q3_k_r4", "q2_k_r4", "iq2_bn_r4"),
        program="work_ik_llama_cpp_wheel",
        source=Source("ik-llama-cpp-python==0.1.5", "ik_llama.cpp-wheel", (), wheel="ik_llama_cpp_python.libs"),
    ),
    Library(
        "BesTLA",
        (
            "s8_g128",
            "s8_row",
            "s7_g128",
            "s6_g128",
            "s5_g128",
            "s4_g128",
            "s4_g32",
            "s4_row",
            "s4_g128_bf16",
            "s3_g128",
            "s2_g128",
        ),
        script="work_bestla.py",
        packages=("auto-round-lib==0.16.0", "torch==2.15.0"),
    ),
    Library(
        "OpenVINO",
        ("bf16", "u8_g128", "u4_g128", "u4_g32", "u4_g128_bf16", "u2_g128"),
        script="work_openvino.py",
        packages=("openvino==2026.4.1",),
    ),
    Library(
        "onnxruntime",
        ("b8_g128", "b8_g32", "b4_g128", "b4_g32", "b2_g128", "b2_g32"),
        script="work_onnxruntime.py",
        packages=("onnxruntime==1.31.1", "onnx==1.23.2"),
    ),
    Library(
        "torch",
        ("f32", "bf16", "s8_onednn", "s8_fbgemm", "b4_g128", "b4_g32"),
        script="work_torch.py",
        packages=("torch==2.15.0",),
    ),
    Library("OpenBLAS", ("f32",), script="work_openblas.py", packages=("scipy-openblas32==0.3.34.481.3",)),
    Library("Eigen", ("f32",), program="work_eigen"),
)

# Whole models, by the program that runs them; their libraries are those of the same name above.
MODELS = (
    ("anybit", "model_anybit", ("int8_g32", "sf6_g128", "sf5_g128", "sf4_g32", "sf4_g128", "sf3_g128", "sf2_g128")),
    ("llama.cpp", "model_llama_cpp", ("q8_0", "q6_K", "q4_K_M", "q4_1", "q4_0", "iq4_nl", "iq4_xs", "q3_K_M", "q2_K")),
    (
        "ik_llama.cpp",
        "model_ik_llama_cpp",
        ("q8_0", "q8_0+repack", "q4_K_M", "q4_K_M+repack", "q4_1", "q4_0", "q4_0+repack", "q2_K", "q2_K+repack"),
    ),
)


def select(only):
    """The libraries and formats that `only` names: "library", "library:format", with * for any text in either."""
    if not only:
        return {library: library.formats for library in LIBRARIES}
    chosen = {}
    for library in LIBRARIES:
        formats = tuple(
            f
            for f in library.formats
            if any(
                fnmatchcase(library.name, p.partition(":")[0]) and fnmatchcase(f, p.partition(":")[2] or "*")
                for p in only
            )
        )
        if formats:
            chosen[library] = formats
    return chosen
