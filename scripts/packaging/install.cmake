# cmake --install BUILD --prefix DIR [--component NAME]
#   runtime: the program, its pages for man, completions for bash, scripts for Slurm
#   doc:     README and docs
#   demo:    the small model that the docs' commands run on
#   cmake:   starattn-config.cmake, by which another project finds the program
# Nothing of it knows DIR, so that the folder can be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# Libraries that the build found outside of the system's folders (modules, Spack) are found again.
set_target_properties(starattn PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS starattn EXPORT starattn RUNTIME COMPONENT runtime)

set(manual ${CMAKE_BINARY_DIR}/manual)
add_custom_command(OUTPUT ${manual}/starattn.bash COMMAND starattn manual ${manual} DEPENDS starattn
  COMMENT "Writing pages for man and completions for bash")
add_custom_target(manual ALL DEPENDS ${manual}/starattn.bash)
install(DIRECTORY ${manual}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 COMPONENT runtime FILES_MATCHING PATTERN "*.1")
install(FILES ${manual}/starattn.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
  RENAME starattn COMPONENT runtime)
install(DIRECTORY slurm DESTINATION ${CMAKE_INSTALL_DATADIR}/starattn COMPONENT runtime)
install(PROGRAMS scripts/mpirun_until_asked.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/starattn COMPONENT runtime)

install(FILES README.md CHANGELOG.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT doc)
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs COMPONENT doc)
install(DIRECTORY data/demo-model DESTINATION ${CMAKE_INSTALL_DATADIR}/starattn COMPONENT demo)

set(config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/starattn)
install(EXPORT starattn NAMESPACE starattn:: FILE starattn-config.cmake DESTINATION ${config_folder} COMPONENT cmake)
write_basic_package_version_file(starattn-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/starattn-config-version.cmake DESTINATION ${config_folder} COMPONENT cmake)
