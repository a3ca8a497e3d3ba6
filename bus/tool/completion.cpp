// `bus completion bash`: a script made from the verbs and options that this very program has, so
// that it cannot lag behind. Topics are asked of the bus when they are needed.
#include "bus/tool/verbs.hpp"

#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>

namespace bus::tool {
namespace {

std::string options_of(const CLI::App& verb) {
  std::string words;
  for (const CLI::Option* const each : verb.get_options()) {
    for (const std::string& name : each->get_lnames()) words += " --" + name;
    for (const std::string& name : each->get_snames()) words += " -" + name;
  }
  return words.empty() ? words : words.substr(1);
}

// Options whose next word is a value of their own, which is not a topic.
std::string valued_options_of(const CLI::App& verb) {
  std::string words;
  for (const CLI::Option* const each : verb.get_options()) {
    if (each->get_positional() || each->get_expected_max() == 0) continue;
    for (const std::string& name : each->get_lnames()) words += "|--" + name;
    for (const std::string& name : each->get_snames()) words += "|-" + name;
  }
  return words.empty() ? "|" : words;
}

bool has_topic(const std::string& verb) {
  return verb != "doctor" && verb != "gc" && verb != "completion" && verb != "bench" &&
         verb != "chaos" && verb != "run" && verb != "pipe";
}

std::string bash_script(const CLI::App& command) {
  std::string verbs;
  std::string cases;
  for (const CLI::App* const verb : command.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string& name = verb->get_name();
    verbs += (verbs.empty() ? "" : " ") + name;
    cases += "    " + name + ")\n      options='" + options_of(*verb) + "'\n      valued='" +
             valued_options_of(*verb) + "|'\n      topics=" + (has_topic(name) ? "1" : "") +
             "\n      words='" + (name == "completion" ? "bash" : "") + "' ;;\n";
  }
  return "# Completion of `bus` for bash; made by: bus completion bash\n"
         "_omnibus_bus() {\n"
         "  local here=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}\n"
         "  local options= valued= topics= words=\n"
         "  COMPREPLY=()\n"
         "  if ((COMP_CWORD == 1)); then\n"
         "    COMPREPLY=($(compgen -W '" +
         verbs +
         " --help --version' -- \"$here\"))\n"
         "    return\n"
         "  fi\n"
         "  case ${COMP_WORDS[1]} in\n" +
         cases +
         "  esac\n"
         "  if [[ $here == -* ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$options\" -- \"$here\"))\n"
         "  elif [[ $before == --file ]]; then\n"
         "    COMPREPLY=($(compgen -f -- \"$here\"))\n"
         "  elif [[ $before == --directory ]]; then\n"
         "    COMPREPLY=($(compgen -d -- \"$here\"))\n"
         "  elif [[ $before == --in || $before == --out || $before == --err ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" list --names 2>/dev/null)\" -- "
         "\"$here\"))\n"
         "  elif [[ $before == --restart ]]; then\n"
         "    COMPREPLY=($(compgen -W 'never on-failure always' -- \"$here\"))\n"
         "  elif [[ $before == -* && $valued == *\"|$before|\"* ]]; then\n"
         "    return\n"
         "  else\n"
         "    [[ -z $topics ]] || words+=\" $(\"${COMP_WORDS[0]}\" list --names 2>/dev/null)\"\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$here\"))\n"
         "  fi\n"
         "}\n"
         "complete -F _omnibus_bus bus\n";
}

exit_code completion(const CLI::App& parser, const std::string& shell) {
  if (shell != "bash") {
    throw failure(exit_code::usage, "no completion for '" + shell + "': take bash");
  }
  std::fputs(bash_script(*parser.get_parent()).c_str(), stdout);
  return exit_code::done;
}

}  // namespace

verb completion_verb() {
  return {.name = "completion",
          .summary = "Prints the script that completes verbs, options and topics",
          .example = "  source <(bus completion bash)",
          .declare = [](CLI::App& parser) {
            const auto shell = std::make_shared<std::string>();
            parser.add_option("shell", *shell, "bash")->required();
            return [shell, &parser] { return completion(parser, *shell); };
          }};
}

}  // namespace bus::tool
