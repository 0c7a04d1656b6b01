# Installs the runtime into a folder of its own, builds project/ against it in each supported way, runs the program.
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    string(REPLACE ";" " " command "${ARGV}")
    message(FATAL_ERROR "${command}\nended with ${result}:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
set(prefix ${WORK}/moved)  # installed elsewhere and moved: nothing in an install may hold absolute paths
foreach(component runtime jit development)
  run(${CMAKE_COMMAND} --install ${BUILD} --component ${component} --prefix ${WORK}/install)
endforeach()
file(RENAME ${WORK}/install ${prefix})
run(${MAKE_DB} ${WORK}/tuned.db ${HOST_KERNEL})

set(flags "-Wall -Wextra -Werror -pedantic")
if(SANITIZE)
  string(APPEND flags " -fsanitize=${SANITIZE}")
endif()
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/consumer/project -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${prefix}
    -DCMAKE_C_COMPILER=${C_COMPILER} "-DCMAKE_C_FLAGS=${flags}"
    -DCMAKE_CXX_COMPILER=${CXX_COMPILER} "-DCMAKE_CXX_FLAGS=${flags}")
run(${CMAKE_COMMAND} --build ${WORK}/build)
foreach(program consumer consumer_static consumer_cpp consumer_cpp_static)
  run(${WORK}/build/${program} ${WORK}/tuned.db)
endforeach()

# The examples of the documentation build against the same install.
run(${CMAKE_COMMAND} -S ${SOURCE}/examples/cpp -B ${WORK}/example_cpp -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${prefix}
    -DCMAKE_CXX_COMPILER=${CXX_COMPILER} "-DCMAKE_CXX_FLAGS=${flags}")
run(${CMAKE_COMMAND} --build ${WORK}/example_cpp)
run(${CMAKE_COMMAND} -S ${SOURCE}/examples/c -B ${WORK}/example -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${prefix}
    -DCMAKE_C_COMPILER=${C_COMPILER} "-DCMAKE_C_FLAGS=${flags}")
run(${CMAKE_COMMAND} --build ${WORK}/example)

find_program(PKG_CONFIG pkg-config)
if(NOT PKG_CONFIG)
  message("NOT RUN: the pkg-config build, for pkg-config is not installed")
  return()
endif()
file(GLOB_RECURSE pc ${prefix}/*/kgen.pc)
get_filename_component(folder ${pc} DIRECTORY)
get_filename_component(libraries ${folder} DIRECTORY)
set(ENV{PKG_CONFIG_PATH} ${folder})
run(sh -c "${C_COMPILER} -std=c11 ${flags} ${SOURCE}/tests/consumer/project/consumer.c -o ${WORK}/by_pkg_config \
$(${PKG_CONFIG} --cflags --libs kgen) -lm -Wl,-rpath,${libraries}")
run(${WORK}/by_pkg_config ${WORK}/tuned.db)
