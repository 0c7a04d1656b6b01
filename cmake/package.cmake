# What ships. Preset release: an archive that runs wherever it is unpacked. Preset deb: Debian packages, which link what Debian has:
#   cmake --build --preset release --target package    → kgen-VERSION-Linux-ARCH.tar.gz
#   cmake --build --preset deb --target package        → kgen, libkgen0, libkgen-jit0, libkgen-dev, python3-kgen
# Install rules without a component belong to the program.
set(KGEN_MAINTAINER "kgen maintainers <maintainers@kgen.invalid>" CACHE STRING "Whom the Debian packages name")

install(DIRECTORY examples/ DESTINATION ${CMAKE_INSTALL_DATADIR}/kgen/examples PATTERN __pycache__ EXCLUDE)
# To read, and for KGEN_SOURCES; the program has them within.
install(DIRECTORY ops templates DESTINATION ${CMAKE_INSTALL_DATADIR}/kgen FILES_MATCHING PATTERN "*.yaml" PATTERN "*.h")

# The database that ships, for who names none (docs/database.md). bench/shipped.py makes it.
set(shipped ${PROJECT_SOURCE_DIR}/db/shipped.db.tar.xz)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/db)
if(EXISTS ${shipped})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${shipped})
  file(ARCHIVE_EXTRACT INPUT ${shipped} DESTINATION ${PROJECT_BINARY_DIR}/share/kgen)
  install(FILES ${PROJECT_BINARY_DIR}/share/kgen/shipped.db DESTINATION ${CMAKE_INSTALL_DATADIR}/kgen)
endif()

set(CPACK_PACKAGE_VENDOR kgen)
set(CPACK_PACKAGE_FILE_NAME ${PROJECT_NAME}-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
    OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
if(NOT KGEN_DEB)
  install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DATADIR}/kgen)
  set(CPACK_GENERATOR TGZ)
  include(CPack)
  return()
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/debian/compress.cmake)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "")  # each package has its own
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_COMPONENTS_ALL program runtime jit development python)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER ${KGEN_MAINTAINER})
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/runtime)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)  # for packages of programs that link these
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(same "(= ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})")

# kgen_package(<component> <name> <section> <summary> <text>): the lines of <text> are the long description.
macro(kgen_package component name section summary text)
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name})
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section})
  set(CPACK_DEBIAN_${upper}_DESCRIPTION "${summary}\n${text}")
  configure_file(cmake/debian/copyright debian/${name}/copyright COPYONLY)
  configure_file(cmake/debian/changelog.in debian/${name}/changelog.Debian @ONLY)
  execute_process(COMMAND gzip -9nf ${PROJECT_BINARY_DIR}/debian/${name}/changelog.Debian COMMAND_ERROR_IS_FATAL ANY)
  install(FILES ${PROJECT_BINARY_DIR}/debian/${name}/copyright ${PROJECT_BINARY_DIR}/debian/${name}/changelog.Debian.gz
          DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/${name} COMPONENT ${component})
endmacro()
set(about "kgen turns YAML op specs into specialised HIP kernels, times the candidates
on the GPU in front of it (or the CPU) and keeps every result in one SQLite
file, from which a small library serves the winners.")
kgen_package(program kgen devel "tuner that writes specialised GPU kernels from op specs" "${about}
.
This package has the program. Kernels for the host device are compiled with
g++, those for AMD devices with clang, those for NVIDIA devices with NVRTC or
nvcc.")
set(CPACK_DEBIAN_PROGRAM_PACKAGE_RECOMMENDS "g++ | c++-compiler")
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SUGGESTS "clang-19 | clang, nvidia-cuda-toolkit, libkgen-dev, python3-kgen")
kgen_package(runtime libkgen0 libs "shared library that launches tuned GPU kernels" "${about}
.
This package has the library that programs link. The drivers of GPUs are
opened at run time.")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/cmake/debian/triggers)
kgen_package(jit libkgen-jit0 libs "shared library that tunes GPU kernels while a program runs" "${about}
.
This package has the library that tunes what a program asks for and its file
does not have.")
set(CPACK_DEBIAN_JIT_PACKAGE_DEPENDS "libkgen0 ${same}, kgen ${same}")
set(CPACK_DEBIAN_JIT_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/cmake/debian/triggers)
kgen_package(development libkgen-dev libdevel "development files of the library that launches tuned GPU kernels" "${about}
.
This package has the C and C++ headers, the static library, and what
pkg-config and CMake need.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libkgen0 ${same}, libkgen-jit0 ${same}")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SUGGESTS
    "libboost-context-dev, libfmt-dev, libsodium-dev, libsqlite3-dev, libxxhash-dev, libzstd-dev")  # for the static library
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_GENERATE_SHLIBS OFF)
kgen_package(python python3-kgen python "Python package that launches tuned GPU kernels" "${about}
.
This package has the module kgen, which takes tensors of torch, numpy, cupy
and others.")
set(CPACK_DEBIAN_PYTHON_PACKAGE_DEPENDS "python3:any, libkgen0 (>= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_PYTHON_PACKAGE_SUGGESTS "python3-numpy, python3-torch")
set(CPACK_DEBIAN_PYTHON_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PYTHON_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_PYTHON_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/cmake/debian/postinst ${PROJECT_SOURCE_DIR}/cmake/debian/prerm)
set(CPACK_DEBIAN_PYTHON_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
