# What cannot travel is refused by the compiler, in a sentence that helps.
function(codec_refuses name type sentence)
  add_test(NAME codec_refuses_${name}
    COMMAND ${CMAKE_CXX_COMPILER} -std=c++20 -fsyntax-only -I${PROJECT_SOURCE_DIR}
            -I$<JOIN:$<TARGET_PROPERTY:protobuf::libprotobuf,INTERFACE_INCLUDE_DIRECTORIES>,;-I>
            -isystem ${PROJECT_BINARY_DIR}
            "-DREFUSED=${type}" ${CMAKE_CURRENT_SOURCE_DIR}/codec_refused.cpp
    COMMAND_EXPAND_LISTS)
  set_tests_properties(codec_refuses_${name} PROPERTIES
    PASS_REGULAR_EXPRESSION "${sentence}" LABELS unit)
endfunction()
codec_refuses(strings std::string "not trivially copyable.*bus::raw for bytes")
codec_refuses(pointers "const char*" "means nothing to another process")
codec_refuses(views std::string_view "means nothing to another process")
codec_refuses(shared_pointers "std::shared_ptr<int>" "not trivially copyable")
codec_refuses(virtual_functions with_virtual "virtual functions cannot travel")
codec_refuses(wide_alignment too_wide "aligned to at most 64 bytes")
codec_refuses(attached_structs "bus::attached<int>" "bus::attached<protobuf message>")
