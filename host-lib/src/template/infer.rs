//! What a folder without a `template.json` most likely wants: guessed from the files that say so, and explained.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::{ProjectType, file::Mistake, invalid, read_file};
use crate::error::Result;

/// A small static server for Node, handed to it in a variable so that nothing is added to the project's files.
const STATIC_SERVER: &str = include_str!("static-server.js");
const STATIC_SERVER_VARIABLE: &str = "STATIC_SERVER";

/// A guess, and the reasons for it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Inferred {
    pub(super) project: Option<ProjectType>,
    pub(super) setup: Vec<String>,
    pub(super) dev: Option<String>,
    pub(super) dev_env: BTreeMap<String, String>,
    pub(super) reasons: Vec<String>,
}

/// Looks at a folder. A `package.json` that is no JSON is an error: guessing past it would surprise.
pub(super) fn infer(folder: &Path, port: u16) -> Result<Inferred> {
    let Some((project, file)) = ProjectType::of(folder) else {
        let reason = "no template.json, and no file by which a type of project is known: no command is run".to_owned();
        return Ok(Inferred { reasons: vec![reason], ..Inferred::default() });
    };
    let mut inferred = match project {
        ProjectType::Node => node(folder, &package(folder)?, port),
        ProjectType::Python => python(folder, &text(folder, "requirements.txt")?, port),
        ProjectType::Java => java(file, &text(folder, file)?, port),
        ProjectType::Go => built("go build ./...", has(folder, "main.go").then_some("exec go run .")),
        ProjectType::Rust => built("cargo build", has(folder, "src/main.rs").then_some("exec cargo run")),
        ProjectType::Ruby => ruby(folder, port),
        ProjectType::Php => php(folder, port),
        ProjectType::Static => Inferred {
            dev: Some(format!("exec node -e \"${STATIC_SERVER_VARIABLE}\"")),
            dev_env: BTreeMap::from([(STATIC_SERVER_VARIABLE.to_owned(), STATIC_SERVER.to_owned())]),
            reasons: vec!["index.html is there: its folder is served as static files".to_owned()],
            ..Inferred::default()
        },
    };
    inferred.project = Some(project);
    if let Some(image) = project.default_image() {
        let reason = format!(
            "{file} is there: it is a project of {project}, whose image is {image} unless another is configured"
        );
        inferred.reasons.insert(0, reason);
    }
    Ok(inferred)
}

fn has(folder: &Path, name: &str) -> bool {
    folder.join(name).is_file()
}

fn text(folder: &Path, name: &str) -> Result<String> {
    let content = read_file(&folder.join(name))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&content).into_owned())
}

fn package(folder: &Path) -> Result<Package> {
    let path = folder.join("package.json");
    let content = read_file(&path)?.unwrap_or_default();
    serde_json::from_slice(&content).map_err(|error| {
        let mistake = Mistake {
            line: Some(error.line()),
            column: Some(error.column()),
            message: format!("this package.json can't be read: {error}"),
            suggestion: Some("mend it, or write a template.json that says setup and dev".to_owned()),
        };
        invalid(&path, &mistake)
    })
}

/// Of a project that one command builds, and another runs.
fn built(setup: &str, dev: Option<&str>) -> Inferred {
    let mut inferred = Inferred { setup: vec![setup.to_owned()], dev: dev.map(str::to_owned), ..Inferred::default() };
    inferred.reasons.push(format!("set-up is `{setup}`"));
    inferred.reasons.push(match dev {
        Some(dev) => format!("dev is `{dev}`, which must listen on $HOST and $PORT"),
        None => "nothing says what it serves: no dev command".to_owned(),
    });
    inferred
}

fn java(file: &str, content: &str, port: u16) -> Inferred {
    let spring = content.contains("spring-boot");
    if file == "pom.xml" {
        let dev = format!("exec mvn --batch-mode spring-boot:run -Dspring-boot.run.arguments=--server.port={port}");
        return built("mvn --batch-mode package -DskipTests", spring.then_some(&dev));
    }
    let dev = if spring {
        Some(format!("exec gradle --no-daemon bootRun --args=--server.port={port}"))
    } else {
        content.contains("application").then(|| "exec gradle --no-daemon run".to_owned())
    };
    built("gradle --no-daemon build -x test", dev.as_deref())
}

fn ruby(folder: &Path, port: u16) -> Inferred {
    let main = ["main.rb", "app.rb", "server.rb"].into_iter().find(|name| has(folder, name));
    let dev = if has(folder, "config.ru") {
        Some(format!("exec bundle exec rackup --host 0.0.0.0 --port {port}"))
    } else {
        main.map(|main| format!("exec bundle exec ruby {main}"))
    };
    built("bundle config set --local path vendor/bundle && bundle install", dev.as_deref())
}

fn php(folder: &Path, port: u16) -> Inferred {
    let served =
        if has(folder, "public/index.php") { Some(" -t public") } else { has(folder, "index.php").then_some("") };
    let dev = served.map(|folder| format!("exec php -S 0.0.0.0:{port}{folder}"));
    let mut inferred = built("composer install --no-interaction", dev.as_deref());
    if !has(folder, "composer.json") {
        inferred.setup.clear();
        inferred.reasons = vec!["index.php is there and no composer.json: no set-up, it is served".to_owned()];
    }
    inferred
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(default)]
    scripts: BTreeMap<String, String>,
    #[serde(default)]
    dependencies: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    dev_dependencies: BTreeMap<String, serde_json::Value>,
    main: Option<String>,
}

fn node(folder: &Path, package: &Package, port: u16) -> Inferred {
    let mut inferred = Inferred::default();
    let has = |name: &str| has(folder, name);
    let (installer, why) = if has("pnpm-lock.yaml") {
        ("npx --yes pnpm install --frozen-lockfile", "pnpm-lock.yaml is there")
    } else if has("yarn.lock") {
        ("npx --yes yarn install --frozen-lockfile", "yarn.lock is there")
    } else if has("package-lock.json") || has("npm-shrinkwrap.json") {
        ("npm ci", "package.json has a lock file")
    } else {
        ("npm install", "package.json has no lock file")
    };
    if package.dependencies.is_empty() && package.dev_dependencies.is_empty() {
        inferred.reasons.push("package.json names no dependencies: no set-up".to_owned());
    } else {
        inferred.setup.push(installer.to_owned());
        inferred.reasons.push(format!("{why}: set-up is `{installer}`"));
    }
    let script = ["dev", "start"].into_iter().find_map(|name| Some((name, package.scripts.get(name)?)));
    if let Some((name, line)) = script {
        let arguments = arguments_of_known_server(line, port);
        let dev = match &arguments {
            Some(arguments) => format!("npm run {name} -- {arguments}"),
            None => format!("npm run {name}"),
        };
        inferred.reasons.push(match arguments {
            Some(_) => format!("script {name:?} runs a known dev server: dev is `{dev}`"),
            None => format!("script {name:?} is there: dev is `{dev}`, which must listen on $HOST and $PORT"),
        });
        inferred.dev = Some(dev);
    } else {
        let main = package.main.as_deref().filter(|main| has(main));
        match main.or(["server.js", "index.js"].into_iter().find(|name| has(name))) {
            Some(main) => {
                let quoted = main.replace('\'', r"'\''");
                inferred.dev = Some(format!("exec node '{quoted}'"));
                inferred.reasons.push(format!("no script dev or start: dev runs {main}, which must listen on $PORT"));
            }
            None => inferred.reasons.push("no script dev or start in package.json: no dev command".to_owned()),
        }
    }
    inferred
}

/// What makes a known dev server listen where the preview is published. Others go by `HOST` and `PORT`.
fn arguments_of_known_server(line: &str, port: u16) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let runs = |program: &str| words.contains(&program);
    let both = |program: &str, verb: &str| words.windows(2).any(|pair| pair == [program, verb]);
    // A line of several commands would hand the arguments to the last of them, whatever it is.
    if line.contains(['&', '|', ';']) || line.contains("--port") || words.contains(&"-p") {
        return None;
    }
    if runs("vite") && !both("vite", "build") {
        Some(format!("--host 0.0.0.0 --port {port} --strictPort"))
    } else if both("next", "dev") || both("next", "start") {
        Some(format!("--hostname 0.0.0.0 --port {port}"))
    } else if both("astro", "dev")
        || both("nuxt", "dev")
        || both("nuxi", "dev")
        || both("ng", "serve")
        || both("webpack", "serve")
        || runs("webpack-dev-server")
        || both("vue-cli-service", "serve")
    {
        Some(format!("--host 0.0.0.0 --port {port}"))
    } else {
        None
    }
}

fn python(folder: &Path, requirements: &str, port: u16) -> Inferred {
    let needs = |package: &str| {
        requirements.lines().any(|line| {
            let name = line.trim().split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_').next();
            name.is_some_and(|name| name.eq_ignore_ascii_case(package))
        })
    };
    let main = ["main.py", "app.py", "server.py"].into_iter().find(|name| folder.join(name).is_file());
    let module = main.map(|main| main.trim_end_matches(".py"));
    let dev = if folder.join("manage.py").is_file() {
        Some(format!(".venv/bin/python manage.py runserver 0.0.0.0:{port}"))
    } else if let (Some(module), true) = (module, needs("fastapi") || needs("uvicorn") || needs("starlette")) {
        Some(format!(".venv/bin/python -m uvicorn {module}:app --reload --host 0.0.0.0 --port {port}"))
    } else if let (Some(module), true) = (module, needs("flask")) {
        Some(format!(".venv/bin/python -m flask --app {module} run --debug --host 0.0.0.0 --port {port}"))
    } else {
        main.map(|main| format!("exec .venv/bin/python {main}"))
    };
    let install = if has(folder, "requirements.txt") { "-r requirements.txt" } else { "." };
    let mut reasons = vec![format!("set-up is `pip install {install}` into .venv")];
    reasons.push(match &dev {
        Some(dev) => format!("dev is `{dev}`"),
        None => "no manage.py, main.py, app.py or server.py: no dev command".to_owned(),
    });
    Inferred {
        project: None,
        setup: vec![format!("python3 -m venv .venv && .venv/bin/python -m pip install {install}")],
        dev,
        dev_env: BTreeMap::from([("PYTHONUNBUFFERED".to_owned(), "1".to_owned())]),
        reasons,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn guess(files: &[(&str, &str)]) -> (Vec<String>, Option<String>) {
        let inferred = infer(folder(files).path(), 4321).unwrap();
        assert!(!inferred.reasons.is_empty(), "a guess is always explained");
        (inferred.setup, inferred.dev)
    }

    #[test]
    fn node_projects() {
        let vite = r#"{"scripts": {"dev": "vite"}, "devDependencies": {"vite": "*"}}"#;
        let dev = Some("npm run dev -- --host 0.0.0.0 --port 4321 --strictPort".to_owned());
        assert_eq!(guess(&[("package.json", vite)]), (vec!["npm install".to_owned()], dev.clone()));
        assert_eq!(guess(&[("package.json", vite), ("package-lock.json", "{}")]), (vec!["npm ci".to_owned()], dev));
        let plain = r#"{"scripts": {"start": "node server.js"}}"#;
        assert_eq!(guess(&[("package.json", plain)]), (vec![], Some("npm run start".to_owned())));
        assert_eq!(
            guess(&[("package.json", "{}"), ("index.js", "")]),
            (vec![], Some("exec node 'index.js'".to_owned()))
        );
        assert_eq!(guess(&[("package.json", "{}")]), (vec![], None));
    }

    #[test]
    fn a_script_of_several_commands_or_with_its_own_port_is_left_alone() {
        for script in ["tsc && vite", "vite --port 3000", "next dev -p 80", "vite build"] {
            assert_eq!(arguments_of_known_server(script, 1), None, "{script}");
        }
        assert_eq!(arguments_of_known_server("next dev", 80).unwrap(), "--hostname 0.0.0.0 --port 80");
    }

    #[test]
    fn python_projects_name_their_image() {
        let flask = folder(&[("requirements.txt", "# web\nFlask==3.0\n"), ("app.py", "")]);
        let inferred = infer(flask.path(), 4321).unwrap();
        assert_eq!(inferred.project, Some(ProjectType::Python));
        assert!(inferred.reasons[0].contains("workspace-python:latest"), "{:?}", inferred.reasons);
        assert!(inferred.dev.unwrap().contains("flask --app app run"));
        let django = folder(&[("requirements.txt", "django"), ("manage.py", "")]);
        assert!(infer(django.path(), 80).unwrap().dev.unwrap().ends_with("runserver 0.0.0.0:80"));
    }

    #[test]
    fn projects_of_other_types_are_built_and_served_as_is_usual() {
        let both = |setup: &str, dev: &str| (vec![setup.to_owned()], Some(dev.to_owned()));
        let maven = "mvn --batch-mode package -DskipTests";
        assert_eq!(guess(&[("pom.xml", "<project/>")]), (vec![maven.to_owned()], None));
        let (_, dev) = guess(&[("pom.xml", "spring-boot-maven-plugin")]);
        assert!(dev.unwrap().ends_with("--server.port=4321"));
        let gradle = "gradle --no-daemon build -x test";
        assert_eq!(
            guess(&[("build.gradle", "plugins { id 'application' }")]),
            both(gradle, "exec gradle --no-daemon run")
        );
        assert_eq!(guess(&[("go.mod", ""), ("main.go", "")]), both("go build ./...", "exec go run ."));
        assert_eq!(guess(&[("Cargo.toml", "")]), (vec!["cargo build".to_owned()], None));
        let (setup, dev) = guess(&[("Gemfile", ""), ("app.rb", "")]);
        assert!(setup[0].ends_with("bundle install") && dev.unwrap() == "exec bundle exec ruby app.rb");
        let served = "exec php -S 0.0.0.0:4321";
        assert_eq!(
            guess(&[("composer.json", "{}"), ("index.php", "")]),
            both("composer install --no-interaction", served)
        );
        assert_eq!(guess(&[("index.php", "")]), (vec![], Some(served.to_owned())));
        let (setup, _) = guess(&[("pyproject.toml", "")]);
        assert!(setup[0].ends_with("pip install ."), "{setup:?}");
    }

    #[test]
    fn a_damaged_package_json_is_said_and_not_guessed_around() {
        let damaged = folder(&[("package.json", "{\n  oops"), ("index.html", "")]);
        let error = infer(damaged.path(), 4321).unwrap_err();
        assert!(error.to_string().contains("package.json:2:3"), "{error}");
    }

    #[test]
    fn nothing_known_runs_nothing_and_says_so() {
        assert_eq!(guess(&[("notes.md", "")]), (vec![], None));
    }
}
