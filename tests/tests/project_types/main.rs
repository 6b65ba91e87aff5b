//! Each type of project, with each of its package managers: a small real project becomes a workspace, installs its dependencies, is built
//! and, where it serves, answers. A level of its own (`cargo xtask test --project-types`), since images are made and packages fetched.
//!
//! RubyGems and Packagist aren't asked: bundler and composer install what lies in the project, with which they do all the rest.

mod projects;

use std::time::{Duration, Instant};

use corehold_e2e::{corehold::Corehold, web::get};
use corehold_host::{CreateWorkspace, ProjectType, Template, image};

use self::projects::Project;

/// Makes the type's image, then a workspace of each project in it; and removes the image, so that the disk holds one at a time.
async fn check(project: ProjectType, all: &[Project]) {
    let corehold = Corehold::start().await;
    if project.default_image().is_some() {
        let built = image::build_project(&corehold.docker, project, corehold.host.image(), &|_| {}).await;
        let built = built.unwrap_or_else(|error| panic!("{error}\n{}", error.output().unwrap_or_default()));
        let (seconds, megabytes) = (built.duration.as_secs_f64(), built.size_bytes / 1_000_000);
        println!("{project:8} image     {seconds:>6.1} s, {megabytes} MB, cached: {}", built.cached);
    }
    for one in all {
        in_a_workspace(&corehold, project, one).await;
    }
    if let Some(image) = project.default_image() {
        // By both of its names. Another run may be using it.
        for name in corehold.docker.image(image).await.unwrap().map(|image| image.tags).unwrap_or_default() {
            let _ = corehold.docker.remove_image(&name).await;
        }
    }
}

async fn in_a_workspace(corehold: &Corehold, project: ProjectType, one: &Project) {
    let folder = corehold.folder(one.name, one.files);
    if let Some(json) = one.template {
        std::fs::write(folder.join("template.json"), json).unwrap();
    }
    let template = Template::load(&folder).unwrap();
    assert_eq!(template.project, Some(project), "{}", one.name);
    let began = Instant::now();
    let workspace = corehold.host.create(CreateWorkspace::from_template(&template)).await;
    let workspace =
        workspace.unwrap_or_else(|error| panic!("{}: {error}\n{}", one.name, error.output().unwrap_or_default()));
    let ready = began.elapsed();
    let (line, says) = one.run;
    let outcome = workspace.command(line).timeout(Duration::from_secs(600)).run().await.unwrap();
    let (stdout, stderr) = (outcome.stdout_text(), outcome.stderr_text());
    assert!(outcome.success() && stdout.contains(says), "{}: {line}: {stdout}{stderr}", one.name);
    if let Some(page) = one.serves {
        let preview = workspace.preview(template.port).await.unwrap();
        let (status, body) = get(&preview.url, "/").await;
        assert!(status == 200 && body.contains(page), "{}: {status} {body}", one.name);
    }
    println!("{project:8} {:8}  {:>6.1} s to ready", one.name, ready.as_secs_f64());
    workspace.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn node_with_npm_yarn_and_pnpm() {
    check(ProjectType::Node, projects::NODE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_with_pip() {
    check(ProjectType::Python, projects::PYTHON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java_with_maven_and_gradle() {
    check(ProjectType::Java, projects::JAVA).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn go_with_its_modules() {
    check(ProjectType::Go, projects::GO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_with_cargo() {
    check(ProjectType::Rust, projects::RUST).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ruby_with_bundler() {
    check(ProjectType::Ruby, projects::RUBY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn php_with_composer() {
    check(ProjectType::Php, projects::PHP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn static_files() {
    check(ProjectType::Static, projects::STATIC).await;
}
