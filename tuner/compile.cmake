# Compiling and inspecting code objects: apart from the rest of the tuner, for it needs no device, generator or database.
find_package(nlohmann_json REQUIRED)
add_library(kgen_compile STATIC compile.cpp compile_cache.cpp compile_worker.cpp inspect.cpp mca.cpp process.cpp)
target_link_libraries(kgen_compile PUBLIC kgen_flags kgen_base PRIVATE nlohmann_json::nlohmann_json dep::dl dep::threads)
# Kernels for the host device run inside this program: they are built with the sanitizers that it has.
target_compile_definitions(kgen_compile PRIVATE KGEN_SANITIZE="${KGEN_SANITIZE}")
