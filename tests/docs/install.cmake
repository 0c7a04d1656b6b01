file(REMOVE_RECURSE ${PREFIX})
foreach(component runtime jit development python)
  execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --component ${component} --prefix ${PREFIX} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endforeach()
