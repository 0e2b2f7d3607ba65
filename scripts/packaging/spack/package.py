# SPDX-License-Identifier: Apache-2.0
# Spack. `spack repo create REPO`, put this file there as packages/starattn/package.py, and build from a clone:
# `spack dev-build --source-path CLONE starattn@0.1.0`. docs/install.md says what was tried.
from spack.package import *


class Starattn(CMakePackage, CudaPackage):
    """Answers questions over documents of 100,000 to millions of tokens with open large language
    models, on the ranks of an HPC job, by Star Attention."""

    homepage = "https://arxiv.org/abs/2411.17116"
    license("Apache-2.0")
    version("0.1.0")

    variant("tests", default=False, description="Build the tests")

    depends_on("c", type="build")  # for FindHDF5
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("cli11", type="build")
    depends_on("nlohmann-json@3.9:", type="build")
    depends_on("googletest", type="build", when="+tests")
    depends_on("mpi")
    depends_on("hdf5~mpi")
    depends_on("openblas")
    depends_on("pcre2")
    depends_on("sentencepiece")
    depends_on("spdlog+shared")
    depends_on("utf8proc")
    depends_on("xxhash")
    depends_on("zlib-api")

    generator("ninja")

    def cmake_args(self):
        args = [self.define_from_variant("STARATTN_TESTS", "tests"), self.define_from_variant("STARATTN_CUDA", "cuda")]
        if self.spec.satisfies("+cuda"):
            # 90a: the kernels for Hopper GPUs
            names = ["90a" if arch == "90" else arch for arch in self.spec.variants["cuda_arch"].value]
            args.append(self.define("CMAKE_CUDA_ARCHITECTURES", names))
        return args
