import Glibc
import Master

exit(MasterProcess.main(CommandLine.arguments))
