//! Who has started this process, as its environment variables tell.
//!
//! In a fixed order: what a person says in `TESSERA_ENVIRONMENT`, `tessera launch`, Open MPI's mpirun,
//! MPICH's (or whoever speaks its PMI), Slurm's srun. The first that speaks counts; where another one
//! contradicts it, nothing is started.

use std::collections::BTreeMap;
use std::fmt;

use crate::CommError;

/// Variable in which a person says who has started the process: `single`, `openmpi`, `mpich`, `slurm`.
const EXPLICIT: &str = "TESSERA_ENVIRONMENT";
/// Set by `tessera launch`, beside those of the MPI that it uses.
const LAUNCHER: &str = "TESSERA_WORLD_SIZE";
const OPEN_MPI: &str = "OMPI_COMM_WORLD_SIZE";
const PMI: &str = "PMI_SIZE";
/// Tasks of the step that srun has started.
const SLURM_STEP: &str = "SLURM_STEP_NUM_TASKS";
/// Number of that step.
const SLURM_STEP_ID: &str = "SLURM_STEP_ID";
/// Tasks that a Slurm job has asked for; in a step, those of the step.
const SLURM_JOB: &str = "SLURM_NTASKS";

/// Who starts processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// Nobody that starts several.
    Single,
    /// `tessera launch`, through an mpirun.
    Launcher,
    /// Open MPI's mpirun.
    OpenMpi,
    /// MPICH's mpirun, or another one that speaks PMI.
    Mpich,
    /// Slurm's srun.
    Slurm,
}

/// Who has started this process, and with how many others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Who.
    pub starter: Starter,
    /// How many ranks it has in mind.
    pub world_size: usize,
    /// The variable that says so, with its value; empty where none does.
    pub why: String,
    /// Variables that speak of several ranks, which MPI has to agree with.
    pub(crate) asked: Vec<(&'static str, usize)>,
}

impl fmt::Display for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.starter {
            Starter::Single => return formatter.write_str("nobody who starts several"),
            Starter::Launcher => "tessera launch",
            Starter::OpenMpi => "mpirun of Open MPI",
            Starter::Mpich => "mpirun of MPICH, or another PMI",
            Starter::Slurm => "srun of Slurm",
        };
        write!(formatter, "{who} ({})", self.why)
    }
}

impl Environment {
    /// That of this process.
    ///
    /// # Errors
    ///
    /// [`CommError::Variable`] if a variable makes no sense, [`CommError::Starters`] if two of them
    /// contradict one another.
    pub fn detect() -> Result<Self, CommError> {
        Self::of(|name| std::env::var(name).ok())
    }

    /// The same, of any variables.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CommError> {
        let number = |name: &'static str| match variable(name) {
            None => Ok(None),
            Some(value) => match value.parse::<usize>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(CommError::Variable { name, value }),
            },
        };
        let order = [
            (Starter::Launcher, LAUNCHER),
            (Starter::OpenMpi, OPEN_MPI),
            (Starter::Mpich, PMI),
            (Starter::Slurm, SLURM_STEP),
        ];
        let explicit = match variable(EXPLICIT).as_deref() {
            None | Some("auto") => None,
            Some("single") => return Ok(Self::single(format!("{EXPLICIT}=single"))),
            Some("openmpi") => Some(Starter::OpenMpi),
            Some("mpich") => Some(Starter::Mpich),
            Some("slurm") => Some(Starter::Slurm),
            Some(value) => {
                return Err(CommError::Starter { name: EXPLICIT, value: value.to_owned() });
            }
        };
        let mut said = Vec::new();
        for (starter, name) in order {
            let counts = explicit.is_none_or(|explicit| explicit == starter);
            if let Some(ranks) = number(name)?.filter(|_| counts) {
                said.push((starter, name, ranks));
            }
        }
        let Some(&(starter, name, world_size)) = said.first() else {
            return Ok(Self::single(String::new()));
        };
        if starter != Starter::Slurm {
            // In a step of its own Slurm counts the daemons through which mpirun starts its ranks.
            said.retain(|(other, ..)| *other != Starter::Slurm);
            if explicit.is_none() && world_size > 1 && variable(SLURM_STEP_ID).is_none() {
                said.extend(
                    number(SLURM_JOB)?
                        .filter(|tasks| *tasks == 1)
                        .map(|tasks| (Starter::Slurm, SLURM_JOB, tasks)),
                );
            }
        }
        if let Some(&(_, theirs, ranks)) = said.iter().find(|(.., ranks)| *ranks != world_size) {
            let (first, second) = ((name, world_size), (theirs, ranks));
            return Err(CommError::Starters { first, second });
        }
        let asked = said.into_iter().map(|(_, name, ranks)| (name, ranks)).collect();
        Ok(Self { starter, world_size, why: format!("{name}={world_size}"), asked })
    }

    fn single(why: String) -> Self {
        Self { starter: Starter::Single, world_size: 1, why, asked: Vec::new() }
    }

    /// Whether there are others to be found by MPI.
    pub(crate) fn is_several(&self) -> bool {
        self.asked.iter().any(|&(_, ranks)| ranks > 1)
    }

    /// Compares with the number of ranks that MPI sees.
    pub(crate) fn check(&self, actual: usize) -> Result<(), CommError> {
        for &(variable, expected) in &self.asked {
            let contradicts = if variable == SLURM_STEP { actual == 1 } else { expected != actual };
            if expected > 1 && contradicts {
                return Err(CommError::World { variable, expected, actual });
            }
        }
        Ok(())
    }
}

/// Sets variables of this process: what the launcher has sent it over the control connection.
///
/// To be called by the main thread before MPI, NCCL and this process' own threads begin.
pub fn set_variables(variables: &BTreeMap<String, String>) {
    for (name, value) in variables {
        // SAFETY: nothing else of the process may read the environment other than through std, which has a lock for
        // it. The worker calls this with the launcher's welcome, before the thread that serves the launcher and
        // before MPI and libtorch start any.
        unsafe { std::env::set_var(name, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Environment, String> {
        let value = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Environment::of(value).map_err(|error| error.to_string())
    }

    fn shown(variables: &[(&str, &str)]) -> String {
        of(variables).unwrap().to_string()
    }

    #[test]
    fn the_first_in_a_fixed_order_counts() {
        let slurm = ("SLURM_STEP_NUM_TASKS", "4");
        let (mpich, open_mpi) = (("PMI_SIZE", "4"), ("OMPI_COMM_WORLD_SIZE", "4"));
        let launcher = ("TESSERA_WORLD_SIZE", "4");
        assert_eq!(shown(&[]), "nobody who starts several");
        assert_eq!(shown(&[slurm]), "srun of Slurm (SLURM_STEP_NUM_TASKS=4)");
        assert!(shown(&[slurm, mpich]).contains("MPICH, or another PMI (PMI_SIZE=4)"));
        assert!(shown(&[slurm, mpich, open_mpi]).contains("Open MPI (OMPI_COMM_WORLD_SIZE=4)"));
        let all = [slurm, mpich, open_mpi, launcher];
        assert!(shown(&all).contains("tessera launch (TESSERA_WORLD_SIZE=4)"));
        let explicit = ("TESSERA_ENVIRONMENT", "slurm");
        assert!(shown(&[slurm, mpich, explicit]).contains("srun of Slurm"));
        let single = of(&[open_mpi, ("TESSERA_ENVIRONMENT", "single")]).unwrap();
        assert_eq!(
            (single.starter, single.world_size, single.is_several()),
            (Starter::Single, 1, false)
        );
    }

    #[test]
    fn contradictions_are_refused_with_both_sides() {
        let problem = of(&[("OMPI_COMM_WORLD_SIZE", "4"), ("SLURM_NTASKS", "1")]).unwrap_err();
        assert!(problem.contains("OMPI_COMM_WORLD_SIZE says 4 ranks, SLURM_NTASKS 1"), "{problem}");
        of(&[("OMPI_COMM_WORLD_SIZE", "4"), ("PMI_SIZE", "2")]).unwrap_err();
        // A step of one daemon, through which mpirun has started some of eight ranks.
        let daemon = [
            ("OMPI_COMM_WORLD_SIZE", "8"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NUM_TASKS", "1"),
            ("SLURM_NTASKS", "1"),
        ];
        assert!(of(&daemon).unwrap().check(8).is_ok());
        // A person who knows better says so.
        let knows = [
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("SLURM_NTASKS", "1"),
            ("TESSERA_ENVIRONMENT", "openmpi"),
        ];
        assert_eq!(of(&knows).unwrap().world_size, 4);
        let problem = of(&[("TESSERA_ENVIRONMENT", "pbs")]).unwrap_err();
        assert!(problem.contains("single, openmpi, mpich or slurm, found 'pbs'"), "{problem}");
        of(&[("PMI_SIZE", "many")]).unwrap_err();
    }

    #[test]
    fn mpi_has_to_see_as_many_ranks_as_were_asked_for() {
        let two = of(&[("OMPI_COMM_WORLD_SIZE", "2")]).unwrap();
        assert!(two.check(2).is_ok());
        let problem = two.check(1).unwrap_err().to_string();
        assert!(problem.contains("OMPI_COMM_WORLD_SIZE says 2 ranks but MPI sees 1"), "{problem}");
        assert!(of(&[("SLURM_STEP_NUM_TASKS", "4")]).unwrap().check(1).is_err());
    }
}
