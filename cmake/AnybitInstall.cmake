include(CMakePackageConfigHelpers)

set(anybit_package_directory "${CMAKE_INSTALL_DATADIR}/cmake/anybit")
install(DIRECTORY include/anybit DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")
install(TARGETS anybit EXPORT anybitTargets)
install(EXPORT anybitTargets NAMESPACE anybit:: DESTINATION "${anybit_package_directory}")

configure_package_config_file(cmake/anybitConfig.cmake.in anybitConfig.cmake
  INSTALL_DESTINATION "${anybit_package_directory}" PATH_VARS CMAKE_INSTALL_INCLUDEDIR NO_SET_AND_CHECK_MACRO)
# While the major version is 0, a minor version may break its users.
write_basic_package_version_file(anybitConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/anybitConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/anybitConfigVersion.cmake"
  cmake/AnybitDependencies.cmake cmake/AnybitKernels.cmake cmake/AnybitIsolate.cmake DESTINATION "${anybit_package_directory}")

configure_file(cmake/anybit.pc.in anybit.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/anybit.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
