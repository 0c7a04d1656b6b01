# cmake -DROOT=… -DFILES=a;b -DOUTPUT=… -P embed.cmake: writes a C++ source with the files' bytes in an array of
# {path, content}. Raw string literals keep it readable; the delimiter appears in no C++ or YAML by accident.
set(text "#include \"generator/embedded.h\"\n\nnamespace kgen {\n\nconst std::vector<EmbeddedFile>& embedded_files() {\n")
string(APPEND text "  static const std::vector<EmbeddedFile> files = {\n")
foreach(file IN LISTS FILES)
  file(READ ${ROOT}/${file} content)
  string(APPEND text "      {\"${file}\", R\"kgen-file(${content})kgen-file\"},\n")
endforeach()
string(APPEND text "  };\n  return files;\n}\n\n}  // namespace kgen\n")
file(WRITE ${OUTPUT} "${text}")
