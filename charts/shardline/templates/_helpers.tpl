{{/* Begins the names of all objects. 40 characters: the longest suffix has 23. */}}
{{- define "shardline.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The cluster's name: the prefix of its Redis keys, so that releases that share a Redis do not see each other. */}}
{{- define "shardline.cluster" -}}
{{- printf "%s.%s" .Release.Namespace .Release.Name | trunc 63 -}}
{{- end -}}

{{/* What selects the pods of one component: never anything that an upgrade changes. Call with (list . "router"). */}}
{{- define "shardline.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: shardline
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "shardline.labels" -}}
{{- $root := index . 0 -}}
{{ include "shardline.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "shardline.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "shardline.cudaImage" -}}
{{- printf "%s:%s" .Values.image.repository (default (printf "%s-cuda" (default .Chart.AppVersion .Values.image.tag)) .Values.replicas.cudaTag) -}}
{{- end -}}

{{/* What every pod of ours has. With a process namespace of the pod's own no program of ours is process 1, which the kernel spares
     a SIGTERM that it has no handler for yet: a pod that is deleted while it starts ends at once. */}}
{{- define "shardline.pod" -}}
shareProcessNamespace: true
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "shardline.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "shardline.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Name and key of the Secret that holds the password of the bundled Redis. */}}
{{- define "shardline.redisSecret" -}}
{{- default (printf "%s-redis" (include "shardline.name" .)) .Values.redis.auth.existingSecret -}}
{{- end -}}

{{/* The address of Redis, without any secret in it. */}}
{{- define "shardline.redisEnv" -}}
{{- if .Values.redis.bundled -}}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "shardline.redisSecret" . }}
      key: {{ .Values.redis.auth.key }}
- name: SHARDLINE_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "shardline.name" . }}-redis.{{ .Release.Namespace }}.svc:6379/0
{{- else if .Values.redis.external.existingSecret -}}
- name: SHARDLINE_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.external.existingSecret }}
      key: {{ .Values.redis.external.key }}
{{- else -}}
- name: SHARDLINE_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "shardline.name" . }}-redis
      key: url
{{- end -}}
{{- end -}}

{{/* What every process of ours is told. */}}
{{- define "shardline.env" -}}
- name: SHARDLINE_CLUSTER
  value: {{ include "shardline.cluster" . }}
{{ include "shardline.redisEnv" . }}
- name: SHARDLINE_LOG_LEVEL
  value: {{ .Values.log.level }}
- name: SHARDLINE_LOG_FORMAT
  value: {{ .Values.log.format }}
- name: SHARDLINE_RUN_DIR
  value: /tmp/shardline
{{- if and (not .Values.redis.bundled) .Values.redis.external.caSecret }}
- name: SSL_CERT_FILE
  value: /etc/shardline/redis-ca/ca.crt
{{- end }}
{{- end -}}

{{/* Volumes of every pod of ours: a place for sockets, and the authority of an external Redis. */}}
{{- define "shardline.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if and (not .Values.redis.bundled) .Values.redis.external.caSecret }}
- name: redis-ca
  secret:
    secretName: {{ .Values.redis.external.caSecret }}
{{- end }}
{{- end -}}

{{- define "shardline.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if and (not .Values.redis.bundled) .Values.redis.external.caSecret }}
- name: redis-ca
  mountPath: /etc/shardline/redis-ca
  readOnly: true
{{- end }}
{{- end -}}

{{/* Where pods may run. Call with a component's values. */}}
{{- define "shardline.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "shardline.replicaPods" -}}
instance: {{ .Release.Name }}
image: {{ include "shardline.image" . }}
cudaImage: {{ include "shardline.cudaImage" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
imagePullSecrets:
  {{- toYaml .Values.image.pullSecrets | nindent 2 }}
labels:
  {{- toYaml .Values.labels | nindent 2 }}
annotations:
  {{- toYaml .Values.replicas.podAnnotations | nindent 2 }}
env:
  {{- include "shardline.env" . | nindent 2 }}
  {{- with .Values.replicas.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  {{- include "shardline.volumes" . | nindent 2 }}
volumeMounts:
  {{- include "shardline.mounts" . | nindent 2 }}
resources:
  {{- toYaml .Values.replicas.resources | nindent 2 }}
planningResources:
  {{- toYaml .Values.replicas.planning.resources | nindent 2 }}
cache:
  volume:
    {{- toYaml .Values.replicas.cache.volume | nindent 4 }}
  bytes: {{ .Values.replicas.cache.bytes | int64 }}
gpuResources:
  {{- toYaml .Values.replicas.gpuResources | nindent 2 }}
gpuRuntimeClassName: {{ .Values.replicas.gpuRuntimeClassName | quote }}
gpuNodeSelector:
  {{- toYaml .Values.replicas.gpuNodeSelector | nindent 2 }}
gpuTolerations:
  {{- toYaml .Values.replicas.gpuTolerations | nindent 2 }}
nodeSelector:
  {{- toYaml .Values.replicas.nodeSelector | nindent 2 }}
tolerations:
  {{- toYaml .Values.replicas.tolerations | nindent 2 }}
priorityClassName: {{ .Values.replicas.priorityClassName | quote }}
{{- end -}}
