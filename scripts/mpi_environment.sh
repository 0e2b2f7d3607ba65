# SPDX-License-Identifier: Apache-2.0
# Source this before mpirun on a workstation or in a container: ranks may share cores, and root may run.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_pml=ob1  # without a search for fabrics, which takes half of MPI_Init
